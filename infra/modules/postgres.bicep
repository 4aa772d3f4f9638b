// PostgreSQL 18. Nobody signs in with a password: the migration identity is the administrator and
// makes the serving identity's role in SQL, which Azure Resource Manager cannot.

@description('Name of the server.')
param name string

@description('Region.')
param location string

@description('Reachable inside the virtual network only.')
param private bool

@description('IPv4 address let in where the network is public; empty for none.')
param operatorAddress string

@description('Compute size.')
param sku string

@description('Tier of that size.')
param tier string

@description('Disk in GiB.')
param storageGb int

@description('How many days back the server can be restored.')
param backupDays int

@description('A standby in another zone, and backups in the paired region.')
param highAvailability bool

@description('The server\'s own pooler, on port 6432.')
param pgBouncer bool

@description('Name of the database.')
param database string

@description('Name of the administrator\'s identity.')
param adminName string

@description('Object id of the administrator\'s identity.')
param adminObjectId string

@description('Name of a person who administers too; empty for none.')
param operatorName string

@description('Object id of that person.')
param operatorObjectId string

@description('Workspace that takes the logs.')
param workspaceId string

var always = [
  {
    name: 'require_secure_transport'
    value: 'ON'
  }
  {
    name: 'ssl_min_protocol_version'
    value: 'TLSv1.2'
  }
  {
    // The detail of an error holds row values, which are personal data.
    name: 'log_error_verbosity'
    value: 'TERSE'
  }
  {
    // What migrations may create: both serve the search by a part of a name.
    name: 'azure.extensions'
    value: 'BTREE_GIN,PG_TRGM'
  }
  {
    name: 'log_min_duration_statement'
    value: '1000'
  }
  {
    name: 'log_checkpoints'
    value: 'ON'
  }
  {
    // For everybody a minute: a person whose machine sleeps in a transaction, a standby that has gone without
    // a word. The app's own limits are shorter, and set on its role by `python -m migrations grant`.
    name: 'idle_in_transaction_session_timeout'
    value: '60000'
  }
  {
    name: 'tcp_keepalives_idle'
    value: '30'
  }
  {
    name: 'tcp_keepalives_interval'
    value: '10'
  }
  {
    name: 'tcp_keepalives_count'
    value: '3'
  }
  {
    name: 'tcp_user_timeout'
    value: '60000'
  }
]
var pooler = [
  {
    name: 'pgbouncer.enabled'
    value: 'true'
  }
  {
    name: 'pgbouncer.default_pool_size'
    value: '200'
  }
]
var parameters = pgBouncer ? concat(always, pooler) : always

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2025-08-01' = {
  name: name
  location: location
  sku: {
    name: sku
    tier: tier
  }
  properties: {
    createMode: 'Default'
    version: '18'
    authConfig: {
      activeDirectoryAuth: 'Enabled'
      passwordAuth: 'Disabled'
      tenantId: tenant().tenantId
    }
    network: {
      publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    }
    storage: {
      storageSizeGB: storageGb
      autoGrow: 'Enabled'
    }
    backup: {
      backupRetentionDays: backupDays
      geoRedundantBackup: highAvailability ? 'Enabled' : 'Disabled'
    }
    highAvailability: {
      mode: highAvailability ? 'ZoneRedundant' : 'Disabled'
    }
  }
}

// The server takes one change at a time, so each of its children waits for the one before.
resource administrator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2025-08-01' = {
  parent: server
  name: adminObjectId
  properties: {
    principalName: adminName
    principalType: 'ServicePrincipal'
    tenantId: tenant().tenantId
  }
}

resource operator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2025-08-01' = if (operatorObjectId != '') {
  parent: server
  name: operatorObjectId
  dependsOn: [
    administrator
  ]
  properties: {
    principalName: operatorName
    principalType: 'User'
    tenantId: tenant().tenantId
  }
}

resource store 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2025-08-01' = {
  parent: server
  name: database
  dependsOn: [
    operator
  ]
  properties: {
    charset: 'UTF8'
    collation: 'en_US.utf8'
  }
}

@batchSize(1)
resource configurations 'Microsoft.DBforPostgreSQL/flexibleServers/configurations@2025-08-01' = [
  for parameter in parameters: {
    parent: server
    name: parameter.name
    dependsOn: [
      store
    ]
    properties: {
      value: parameter.value
      source: 'user-override'
    }
  }
]

// 0.0.0.0 lets in every address inside Azure, of other customers too; the site's is not fixed. Only
// for trying the service out: a token of the right identity is still needed.
resource fromAzure 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2025-08-01' = if (!private) {
  parent: server
  name: 'azure'
  dependsOn: [
    configurations
  ]
  properties: {
    startIpAddress: '0.0.0.0'
    endIpAddress: '0.0.0.0'
  }
}

resource fromOperator 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2025-08-01' = if (!private && operatorAddress != '') {
  parent: server
  name: 'operator'
  dependsOn: [
    fromAzure
  ]
  properties: {
    startIpAddress: operatorAddress
    endIpAddress: operatorAddress
  }
}

#disable-next-line use-recent-api-versions // There is no newer one.
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: server
  name: 'logs'
  dependsOn: [
    configurations
  ]
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

@description('Resource id of the server.')
output id string = server.id

@description('Host name of the server.')
output host string = server.properties.fullyQualifiedDomainName
