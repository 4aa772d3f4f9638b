#!/usr/bin/env bash
# Brings both stores to the schema of this code, and lets the app's identity serve. Run it on a machine
# that reaches the stores, signed in to Azure (`az login`) as the migration identity.
#
#   POSTGRES_HOST DOCUMENTDB_HOST MIGRATE_IDENTITY APP_IDENTITY   outputs of the deployment
#   PGSSLROOTCERT   the machine's certificate authorities (default: Debian's and Ubuntu's file)
set -euo pipefail
: "${POSTGRES_HOST:?}" "${DOCUMENTDB_HOST:?}" "${MIGRATE_IDENTITY:?}" "${APP_IDENTITY:?}"
export PGSSLROOTCERT="${PGSSLROOTCERT:-/etc/ssl/certs/ca-certificates.crt}"

# One Entra token signs in to both stores: to PostgreSQL as the password, to MongoDB from a file, the
# way in which PyMongo takes a ready token. Neither is ever an argument that `ps` would show.
PGPASSWORD="$(az account get-access-token --resource-type oss-rdbms --query accessToken --output tsv)"
export PGPASSWORD
AZURE_FEDERATED_TOKEN_FILE="$(mktemp)"
export AZURE_FEDERATED_TOKEN_FILE
trap 'rm -f "$AZURE_FEDERATED_TOKEN_FILE"' EXIT
printf '%s' "$PGPASSWORD" > "$AZURE_FEDERATED_TOKEN_FILE"

# Port 5432, not PgBouncer: a migration holds a lock of its session.
export MIGRATIONS_POSTGRES_DSN="postgresql://$MIGRATE_IDENTITY@$POSTGRES_HOST:5432/twins?sslmode=verify-full"
export MONGODB_DATABASE=twins
export MONGODB_URI="mongodb+srv://$DOCUMENTDB_HOST/?tls=true&retryWrites=false\
&authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s"

python -m migrations upgrade
python -m migrations grant --entra "$APP_IDENTITY"
