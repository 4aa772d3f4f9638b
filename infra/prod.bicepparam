// Production: everything closed to the internet, a standby of each store in another zone.
using './main.bicep'

param network = 'private'
param publicUrl = readEnvironmentVariable('TWINS_PUBLIC_URL', '')
param alertEmail = readEnvironmentVariable('TWINS_ALERT_EMAIL', 'operators@example.com')
param githubRepository = readEnvironmentVariable('TWINS_GITHUB_REPOSITORY', '')

param postgresSku = 'Standard_D4ds_v5'
param postgresTier = 'GeneralPurpose'
param postgresStorageGb = 128
param postgresBackupDays = 35
param documentDbTier = 'M30'
param documentDbStorageGb = 128
param highAvailability = true

param alwaysReadyInstances = 2
param maximumInstances = 100
param requestsPerInstance = 32
param rollingUpdates = bool(readEnvironmentVariable('TWINS_ROLLING_UPDATES', 'false'))
param postgresPoolMax = 14

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
