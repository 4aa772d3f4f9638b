// Twins in one resource group: the function app, its two stores, its secrets and its monitoring.
targetScope = 'resourceGroup'

import { issuer, recordController } from 'modules/types.bicep'

@description('Starts every name. With the hash of the resource group it must be unique in Azure.')
@minLength(3)
@maxLength(10)
param prefix string = 'twins'

@description('Region of every resource that has one.')
param location string = resourceGroup().location

@description('private: the stores, the vault and the site answer inside the virtual network only.')
@allowed([
  'private'
  'public'
])
param network string

@description('IPv4 address let through the stores\' firewalls where the network is public; empty for none.')
param operatorAddress string = ''

@description('Object id of a person who may migrate beside the migration identity; empty for none.')
param operatorObjectId string = ''

@description('Name that person signs in with; their PostgreSQL role.')
param operatorName string = ''

@description('Compute size of PostgreSQL.')
param postgresSku string

@description('Tier of that size. PgBouncer exists above Burstable only.')
@allowed([
  'Burstable'
  'GeneralPurpose'
  'MemoryOptimized'
])
param postgresTier string

@description('Disk of PostgreSQL in GiB; it grows by itself.')
@minValue(32)
param postgresStorageGb int

@description('How many days back PostgreSQL can be restored.')
@minValue(7)
@maxValue(35)
param postgresBackupDays int

@description('Compute tier of DocumentDB. M10 to M25 have no high availability.')
param documentDbTier string

@description('Disk of each DocumentDB shard in GiB.')
@minValue(32)
param documentDbStorageGb int

@description('A standby of each store in another zone, backups in another region, instances over zones.')
param highAvailability bool

@description('Instances that are always running; two at least where they are spread over zones.')
@minValue(1)
param alwaysReadyInstances int

@description('Bound of the instances that serve HTTP. Flex Consumption takes 40 and more.')
@minValue(40)
@maxValue(1000)
param maximumInstances int

@description('Requests that one instance serves at once. The platform\'s own default for Python is 1.')
@minValue(1)
@maxValue(1000)
param requestsPerInstance int

@description('A new package replaces instances one by one and lets requests finish. A preview that not every region has.')
param rollingUpdates bool = false

@description('Connections of one instance to PostgreSQL. Instances × this must fit the server.')
@minValue(1)
param postgresPoolMax int

@description('Expected `aud` of HS256 tokens.')
@minLength(1)
param jwtAudience string

@description('Expected `iss` of HS256 tokens; empty accepts any.')
param jwtIssuer string

@description('Days that erasure certificates name as the end of every backup and log: longer than the 35 of both stores, and than any that you keep elsewhere.')
@minValue(36)
param backupRetentionDays int = 36

@description('Days for which the journal of refusals and erasures is kept: longer than `backupRetentionDays`, since a restored backup needs it.')
@minValue(37)
param journalRetentionDays int = 60

@description('The lowest assurance that the gate takes as a yes. What was recorded before stays a yes with the first alone.')
@allowed(['recorded', 'link', 'token'])
param minAssurance string = 'recorded'

@description('Who is responsible for the records of consent, as receipts say: the object of CONTROLLER, which docs/RECEIPTS.md describes.')
param controller recordController?

@description('Identity providers whose tokens are accepted: the objects of AUTH_ISSUERS, which docs/IDENTITY.md describes.')
param authIssuers issuer[] = []

@description('Whether HS256 tokens are accepted. It can be off only where there are identity providers.')
param hs256 bool = true

@description('Where alerts are mailed to.')
param alertEmail string

@description('Origin at which callers reach the service, such as https://twins.example.com; it is PUBLIC_URL, and what the availability tests call. Empty: the site\'s own where the network is public; where it is private nothing outside can call it, and the heartbeat alert stands alone.')
param publicUrl string = ''

@description('owner/name of the GitHub repository whose workflow may sign in as the migration identity; empty for none.')
param githubRepository string = ''

@description('Environment of that repository the sign-in is bound to.')
param githubEnvironment string = 'production'

@secure()
@description('HS256 key for bearer tokens. Given with the first deployment only; docs/OPERATIONS.md says how it is rotated. Empty leaves the vault as it is.')
param jwtSecret string = ''

@secure()
@description('Key of the digests that stand in for owners. Given with the first deployment only: another key orphans erasure certificates.')
param digestKey string = ''

@secure()
@description('EC P-256 private key as a JWK, for receipts. Given with the first deployment only: rotated, it is an array with every older key, as docs/OPERATIONS.md says.')
param receiptKey string = ''

@description('When this deployment runs; secrets given with it expire a year later.')
param now string = utcNow()

var private = network == 'private'
var name = '${prefix}-${uniqueString(resourceGroup().id)}'
var database = 'twins'
var pgBouncer = postgresTier != 'Burstable'

module identities 'modules/identities.bicep' = {
  name: 'identities'
  params: {
    name: name
    location: location
    githubRepository: githubRepository
    githubEnvironment: githubEnvironment
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: {
    name: name
    location: location
  }
}

module virtualNetwork 'modules/network.bicep' = {
  name: 'network'
  params: {
    name: name
    location: location
    enabled: private
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  params: {
    name: '${replace(prefix, '-', '')}${uniqueString(resourceGroup().id)}'
    location: location
    private: private
    zoneRedundant: highAvailability
    workspaceId: monitoring.outputs.workspaceId
  }
}

module vault 'modules/vault.bicep' = {
  name: 'vault'
  params: {
    name: take(name, 24)
    location: location
    private: private
    workspaceId: monitoring.outputs.workspaceId
    jwtSecret: jwtSecret
    digestKey: digestKey
    receiptKey: receiptKey
    now: now
  }
}

module postgres 'modules/postgres.bicep' = {
  name: 'postgres'
  params: {
    name: name
    location: location
    private: private
    operatorAddress: operatorAddress
    sku: postgresSku
    tier: postgresTier
    storageGb: postgresStorageGb
    backupDays: postgresBackupDays
    highAvailability: highAvailability
    pgBouncer: pgBouncer
    database: database
    adminName: identities.outputs.migrateName
    adminObjectId: identities.outputs.migratePrincipalId
    operatorName: operatorName
    operatorObjectId: operatorObjectId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module documentDb 'modules/documentdb.bicep' = {
  name: 'documentdb'
  params: {
    name: take(name, 40)
    location: location
    private: private
    operatorAddress: operatorAddress
    tier: documentDbTier
    storageGb: documentDbStorageGb
    highAvailability: highAvailability
    principalIds: [
      identities.outputs.appPrincipalId
      identities.outputs.migratePrincipalId
    ]
    operatorObjectId: operatorObjectId
    workspaceId: monitoring.outputs.workspaceId
  }
}

module roles 'modules/roles.bicep' = {
  name: 'roles'
  params: {
    appPrincipalId: identities.outputs.appPrincipalId
    appName: identities.outputs.appName
    storageName: storage.outputs.name
    vaultName: vault.outputs.name
    insightsName: monitoring.outputs.insightsName
  }
}

module storeEndpoints 'modules/endpoints.bicep' = {
  name: 'store-endpoints'
  params: {
    name: name
    location: location
    enabled: private
    virtualNetworkId: virtualNetwork.outputs.id
    subnetId: virtualNetwork.outputs.endpointsSubnetId
    targets: [
      {
        name: 'storage'
        id: storage.outputs.id
        group: 'blob'
        zone: 'privatelink.blob.${environment().suffixes.storage}'
      }
      {
        name: 'vault'
        id: vault.outputs.id
        group: 'vault'
        zone: 'privatelink.vaultcore.azure.net'
      }
      {
        name: 'postgres'
        id: postgres.outputs.id
        group: 'postgresqlServer'
        zone: 'privatelink.postgres.database.azure.com'
      }
      {
        name: 'documentdb'
        id: documentDb.outputs.id
        group: 'MongoCluster'
        zone: 'privatelink.mongocluster.cosmos.azure.com'
      }
    ]
  }
}

module siteEndpoint 'modules/endpoints.bicep' = {
  name: 'site-endpoint'
  params: {
    name: name
    location: location
    enabled: private
    virtualNetworkId: virtualNetwork.outputs.id
    subnetId: virtualNetwork.outputs.endpointsSubnetId
    targets: [
      {
        name: 'site'
        id: site.outputs.id
        group: 'sites'
        zone: 'privatelink.azurewebsites.net'
      }
    ]
  }
}

// After the roles and the way to the vault: if the site cannot read a Key Vault reference at its start, it tries again only within
// a day.
module site 'modules/site.bicep' = {
  name: 'site'
  dependsOn: [
    roles
    storeEndpoints
  ]
  params: {
    name: name
    location: location
    private: private
    subnetId: virtualNetwork.outputs.appSubnetId
    zoneRedundant: highAvailability
    identityId: identities.outputs.appId
    identityClientId: identities.outputs.appClientId
    storageName: storage.outputs.name
    packagesUrl: storage.outputs.packagesUrl
    insightsConnectionString: monitoring.outputs.insightsConnectionString
    workspaceId: monitoring.outputs.workspaceId
    vaultName: vault.outputs.name
    vaultUrl: vault.outputs.url
    alwaysReadyInstances: alwaysReadyInstances
    maximumInstances: maximumInstances
    requestsPerInstance: requestsPerInstance
    rollingUpdates: rollingUpdates
    postgresHost: postgres.outputs.host
    postgresRole: identities.outputs.appName
    postgresDatabase: database
    postgresPoolMax: postgresPoolMax
    pgBouncer: pgBouncer
    documentDbHost: documentDb.outputs.host
    jwtAudience: jwtAudience
    jwtIssuer: jwtIssuer
    backupRetentionDays: backupRetentionDays
    journalRetentionDays: journalRetentionDays
    minAssurance: minAssurance
    controller: controller
    authIssuers: authIssuers
    hs256: hs256
    publicUrl: publicUrl
  }
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  params: {
    name: name
    location: location
    email: alertEmail
    insightsId: monitoring.outputs.insightsId
    vaultId: vault.outputs.id
    postgresId: postgres.outputs.id
    documentDbId: documentDb.outputs.id
    testedUrl: publicUrl != '' || private ? publicUrl : site.outputs.url
    tested: publicUrl != '' || !private
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  params: {
    name: name
    location: location
    insightsId: monitoring.outputs.insightsId
  }
}

@description('Name for `func azure functionapp publish`.')
output siteName string = site.outputs.name

@description('Base address of the service.')
output siteUrl string = site.outputs.url

@description('Host of PostgreSQL, for migrations on port 5432.')
output postgresHost string = postgres.outputs.host

@description('Host of DocumentDB.')
output documentDbHost string = documentDb.outputs.host

@description('Identity that serves; also the name of its PostgreSQL role.')
output appIdentityName string = identities.outputs.appName

@description('Identity that migrates; also the name of its PostgreSQL role.')
output migrateIdentityName string = identities.outputs.migrateName

@description('Client id to sign in with for migrations.')
output migrateIdentityClientId string = identities.outputs.migrateClientId

@description('Vault that holds the secrets.')
output vaultName string = vault.outputs.name
