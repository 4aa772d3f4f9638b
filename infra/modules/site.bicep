// The function app on Flex Consumption. Its settings are all here; the runtime, the worker count and
// the package are not settings on this plan.
import { issuer, recordController } from 'types.bicep'

@description('Name of the site.')
param name string

@description('Region.')
param location string

@description('Reachable inside the virtual network only.')
param private bool

@description('Subnet it goes out through; empty for none.')
param subnetId string

@description('Instances spread over zones.')
param zoneRedundant bool

@description('Resource id of the identity it runs as.')
param identityId string

@description('Client id of that identity.')
param identityClientId string

@description('Storage account of the Functions host.')
param storageName string

@description('Container of its packages.')
param packagesUrl string

@description('Where telemetry goes.')
param insightsConnectionString string

@description('Workspace that takes the host\'s logs.')
param workspaceId string

@description('Vault that the references name.')
param vaultName string

@description('Address of the vault, for the secrets that are refreshed while it runs.')
param vaultUrl string

@description('Instances that are always running.')
param alwaysReadyInstances int

@description('Bound of the instances.')
param maximumInstances int

@description('Requests that one instance serves at once.')
param requestsPerInstance int

@description('A new package replaces instances one by one.')
param rollingUpdates bool

@description('Host of PostgreSQL.')
param postgresHost string

@description('PostgreSQL role of the identity.')
param postgresRole string

@description('PostgreSQL database.')
param postgresDatabase string

@description('Connections of one instance to PostgreSQL.')
param postgresPoolMax int

@description('Connect through the server\'s pooler.')
param pgBouncer bool

@description('Host of DocumentDB.')
param documentDbHost string

@description('Expected `aud` of bearer tokens.')
param jwtAudience string

@description('Expected `iss` of bearer tokens.')
param jwtIssuer string

@description('Days after which no backup and no log is left.')
param backupRetentionDays int

@description('Days for which the journal of refusals and erasures is kept: longer than any backup.')
param journalRetentionDays int

@description('The lowest assurance that the gate takes as a yes.')
@allowed(['recorded', 'link', 'token'])
param minAssurance string

@description('Who is responsible for the records of consent, an object as docs/RECEIPTS.md describes it; null where receipts name nobody.')
param controller recordController?

@description('Identity providers whose tokens are accepted, each an object as README.md describes it.')
param authIssuers issuer[]

@description('Origin at which callers reach the site; empty where none is known.')
param publicUrl string

@description('HS256 tokens are accepted too.')
param hs256 bool

var settings = {
  // Of the Functions host and its Python worker
  AzureWebJobsStorage__accountName: storageName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY: 'true'
  // Libraries that the worker would instrument. Its spans of FastAPI carry queries, and a filter may be a twin's name.
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: 'azure_sdk,django,fastapi,flask,httpx,psycopg2,requests,urllib,urllib3'
  // Of the application
  POSTGRES_DSN: 'postgresql://${postgresRole}@${postgresHost}:${pgBouncer ? 6432 : 5432}/${postgresDatabase}?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt'
  POSTGRES_AUTH: 'entra'
  POSTGRES_POOL_MIN: '0'
  POSTGRES_POOL_MAX: string(postgresPoolMax)
  POSTGRES_POOL_RESERVED: '4'
  POSTGRES_POOL_IDLE: '60'
  POSTGRES_ACQUIRE_TIMEOUT: '2'
  POSTGRES_CONNECT_TIMEOUT: '5'
  POSTGRES_COMMAND_TIMEOUT: '3'
  // PgBouncer here knows no prepared statements: with a cache most requests fail.
  POSTGRES_STATEMENT_CACHE: pgBouncer ? '0' : '100'
  MONGODB_URI: 'mongodb+srv://${documentDbHost}/?tls=true&retryWrites=false&maxIdleTimeMS=120000'
  MONGODB_AUTH: 'oidc'
  MONGODB_DATABASE: 'twins'
  MONGODB_POOL_MAX: '20'
  MONGODB_TIMEOUT: '5'
  AUTH_ISSUERS: empty(authIssuers) ? '' : string(authIssuers)
  JWT_AUDIENCE: jwtAudience
  JWT_ISSUER: jwtIssuer
  JWT_REQUIRE_EXP: 'true'
  JWT_MAX_LIFE: '172800'
  JWT_NBF_LEEWAY: '10'
  DIGEST_KEY: '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=digest-key)'
  KEY_VAULT_URL: vaultUrl
  KEY_VAULT_JWT_SECRET: hs256 ? 'jwt-secret' : ''
  KEY_VAULT_RECEIPT_SECRET: 'receipt-key'
  KEY_VAULT_REFRESH: '300'
  KEY_VAULT_MAX_AGE: '3600'
  AZURE_CLIENT_ID: identityClientId
  ERASURE_SECOND_SWEEP: '300'
  BACKUP_RETENTION_DAYS: string(backupRetentionDays)
  JOURNAL_RETENTION_DAYS: string(journalRetentionDays)
  CONTROLLER: controller == null ? '' : string(controller)
  ACCOUNT_REQUESTS: '16'
  ACCOUNT_CONCURRENCY: '2'
  ACCOUNT_DECISIONS: '32'
  ACCOUNT_NOES: '8'
  ACCOUNT_TWINS: '1000000'
  ACCOUNT_VERSIONS: '5000000'
  ACCOUNT_BYTES: '10737418240'
  ACCOUNT_CONSENTS: '10000000'
  SECOND_PROCESS: 'true'
  PUBLIC_URL: publicUrl
  MIN_ASSURANCE: minAssurance
  LOG_LEVEL: 'INFO'
  LOG_NAMES: 'false'
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: name
  location: location
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource site 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    virtualNetworkSubnetId: subnetId == '' ? null : subnetId
    keyVaultReferenceIdentity: identityId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packagesUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: 2048
        maximumInstanceCount: maximumInstances
        alwaysReady: [
          {
            name: 'http'
            instanceCount: alwaysReadyInstances
          }
        ]
        triggers: {
          http: {
            perInstanceConcurrency: requestsPerInstance
          }
        }
      }
      // The default ends requests that are under way.
      #disable-next-line BCP037 // The service documents it for 2024-11-01 and later; the types of no version have it.
      siteUpdateStrategy: rollingUpdates ? { type: 'RollingUpdate' } : null
    }
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      remoteDebuggingEnabled: false
      appSettings: [
        for setting in items(settings): {
          name: setting.key
          value: setting.value
        }
      ]
    }
  }
}

resource noFtpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: site
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource noScmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: site
  name: 'scm'
  properties: {
    allow: false
  }
}

#disable-next-line use-recent-api-versions // There is no newer one.
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: site
  name: 'logs'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the site.')
output id string = site.id

@description('Name of the site.')
output name string = site.name

@description('Base address of the site.')
output url string = 'https://${site.properties.defaultHostName}'
