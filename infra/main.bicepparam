// To try the service out: one small server of each kind, reachable from the internet with a token.
using './main.bicep'

param network = 'public'
param publicUrl = readEnvironmentVariable('TWINS_PUBLIC_URL', '')
param operatorAddress = readEnvironmentVariable('TWINS_OPERATOR_ADDRESS', '')
param operatorObjectId = readEnvironmentVariable('TWINS_OPERATOR_OBJECT_ID', '')
param operatorName = readEnvironmentVariable('TWINS_OPERATOR_NAME', '')
param alertEmail = readEnvironmentVariable('TWINS_ALERT_EMAIL', 'operators@example.com')
param githubRepository = readEnvironmentVariable('TWINS_GITHUB_REPOSITORY', '')

param postgresSku = 'Standard_B2s'
param postgresTier = 'Burstable'
param postgresStorageGb = 32
param postgresBackupDays = 7
param documentDbTier = 'M10'
param documentDbStorageGb = 32
param highAvailability = false

param alwaysReadyInstances = 1
param maximumInstances = 40
param requestsPerInstance = 32
param postgresPoolMax = 8

param jwtAudience = readEnvironmentVariable('TWINS_JWT_AUDIENCE', 'twins')
param jwtIssuer = readEnvironmentVariable('TWINS_JWT_ISSUER', '')
param controller = json(readEnvironmentVariable('TWINS_CONTROLLER', 'null'))
param authIssuers = json(readEnvironmentVariable('TWINS_AUTH_ISSUERS', '[]'))
param hs256 = bool(readEnvironmentVariable('TWINS_HS256', 'true'))

// Set for the first deployment only, by `python infra/new_secrets.py azure`; else the vault keeps its own. A later
// deployment with them would replace all three: to rotate one see docs/OPERATIONS.md.
param jwtSecret = readEnvironmentVariable('TWINS_JWT_SECRET', '')
param digestKey = readEnvironmentVariable('TWINS_DIGEST_KEY', '')
param receiptKey = readEnvironmentVariable('TWINS_RECEIPT_KEY', '')
