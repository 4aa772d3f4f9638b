# Two images: `migrate` brings both stores to the schema of this code, `app` serves.

FROM python:3.13-slim-bookworm AS migrate

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv
COPY requirements.txt requirements-dev.txt ./
# The pins of requirements-dev.txt, without what only development needs.
RUN pip install --no-cache-dir --requirement requirements.txt --constraint requirements-dev.txt alembic "sqlalchemy[asyncio]"
COPY infra/new_secrets.py infra/
COPY migrations migrations
COPY shared shared
USER 10001
CMD ["python", "-m", "migrations", "upgrade"]


FROM mcr.microsoft.com/azure-functions/python:4-python3.13 AS app

# Not port 80, so that the host needs no right that root has. Its keys and leases go to the storage
# account, so nothing under its own folder has to be writable.
ENV AzureWebJobsScriptRoot=/home/site/wwwroot \
    AzureFunctionsJobHost__Logging__Console__IsEnabled=true \
    ASPNETCORE_URLS=http://+:8080 \
    HOME=/home/twins \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/site/wwwroot
COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt \
    && useradd --uid 10001 --create-home --home-dir /home/twins twins
COPY function_app.py host.json ./
COPY shared shared
COPY twins twins
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
