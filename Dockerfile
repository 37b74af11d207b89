# One image; web, worker, beat and every `wasl` command are commands of it.

FROM python:3.11.14-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/wasl \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
# What changes seldom comes first. Neither tests nor the embedded services are in the image.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-default-groups --no-install-project
COPY LICENSE README.md ./
COPY gateway gateway
COPY reconciliation reconciliation
COPY webhooks webhooks
RUN uv sync --locked --no-default-groups --no-editable

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/wasl wasl \
    && install -d -o wasl -g wasl -m 0700 /var/lib/wasl
COPY --from=build /opt/wasl /opt/wasl
ENV PATH=/opt/wasl/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    WASL_HOME=/var/lib/wasl \
    WASL_MODE=production
USER 10001:10001
WORKDIR /var/lib/wasl
EXPOSE 8000
# All three programs end in good order on it, and none leaves children to an init.
STOPSIGNAL SIGTERM
# Of the web process; worker and beat say otherwise in compose.yaml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "gateway.serve", "--host", "0.0.0.0", "--port", "8000"]
