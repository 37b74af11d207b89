import time
from datetime import date
from gateway import process
from gateway.db import execute, snapshot, transaction
from tests.factories import *
from tests.gateway.test_remissions import *
from tests.gateway.test_plans import plan_of, review as review_p
def test_scale(database):
    with transaction() as s:
        people=[a_contributor(s, registered_on=date(2022,1,1)).id for _ in range(500)]
    for p in ["2022-07","2022-08","2022-09","2022-10","2022-11","2022-12"]+["2023-02","2023-03"]:
        issue(p)
    with snapshot() as s:
        refs=[tuple(r) for r in execute(s,"SELECT reference, amount_minor FROM invoice WHERE period<'2023-01'")]
    reps=[a_report(r, amount_minor=m, paid_at=at("2023-03-10"), paid_at_given="x", stated_at=at("2023-03-10"), received_at=at("2023-03-10")) for r,m in refs]
    t=time.time()
    for i in range(0,len(reps),500): record(*reps[i:i+500], now=at("2023-03-10"))
    print("recorded", time.time()-t)
    t=time.time(); print(grant(DECISION,"2023-04-01")); print("grant", time.time()-t)
    t=time.time(); print(review("2023-04-01")); print("review", time.time()-t)
    t=time.time()
    for p in people[:100]: plan_of(p, 24, "2023-06-01")
    print("100 plans", time.time()-t)
    t=time.time(); print(review_p("2023-06-20")); print("review running 100", time.time()-t)
    t=time.time(); print(review_p("2023-12-20")); print("review broken 100", time.time()-t)
