// Azure DocumentDB (Cosmos DB for MongoDB vCore): personas. Sign-in by Entra tokens only, so there is
// no password that could leak.

@description('Name: 3 to 40 lower-case letters, digits and hyphens.')
@minLength(3)
@maxLength(40)
param name string

@description('Region.')
param location string

@description('Reachable inside the virtual network only.')
param private bool

@description('IPv4 address let in where the network is public; empty for none.')
param operatorAddress string

@description('Compute tier.')
param tier string

@description('Disk in GiB.')
param storageGb int

@description('A standby in another zone.')
param highAvailability bool

@description('Object ids of the identities that read and write.')
param principalIds string[]

@description('Object id of a person who migrates too; empty for none.')
param operatorObjectId string

@description('Workspace that takes the logs.')
param workspaceId string

resource cluster 'Microsoft.DocumentDB/mongoClusters@2025-09-01' = {
  name: name
  location: location
  properties: {
    createMode: 'Default'
    serverVersion: '8.0'
    authConfig: {
      allowedModes: [
        'MicrosoftEntraID'
      ]
    }
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    compute: {
      tier: tier
    }
    storage: {
      sizeGb: storageGb
    }
    sharding: {
      shardCount: 1
    }
    highAvailability: {
      targetMode: highAvailability ? 'ZoneRedundantPreferred' : 'Disabled'
    }
  }
}

// `root` is the only role that the service gives Entra identities through Azure Resource Manager.
@batchSize(1)
resource users 'Microsoft.DocumentDB/mongoClusters/users@2025-09-01' = [
  for principalId in principalIds: {
    parent: cluster
    name: principalId
    properties: {
      identityProvider: {
        type: 'MicrosoftEntraID'
        properties: {
          principalType: 'servicePrincipal'
        }
      }
      roles: [
        {
          db: 'admin'
          role: 'root'
        }
      ]
    }
  }
]

resource operator 'Microsoft.DocumentDB/mongoClusters/users@2025-09-01' = if (operatorObjectId != '') {
  parent: cluster
  name: operatorObjectId
  dependsOn: [
    users
  ]
  properties: {
    identityProvider: {
      type: 'MicrosoftEntraID'
      properties: {
        principalType: 'user'
      }
    }
    roles: [
      {
        db: 'admin'
        role: 'root'
      }
    ]
  }
}

// 0.0.0.0 lets in every address inside Azure, of other customers too. Only for trying the service out.
resource fromAzure 'Microsoft.DocumentDB/mongoClusters/firewallRules@2025-09-01' = if (!private) {
  parent: cluster
  name: 'azure'
  properties: {
    startIpAddress: '0.0.0.0'
    endIpAddress: '0.0.0.0'
  }
}

resource fromOperator 'Microsoft.DocumentDB/mongoClusters/firewallRules@2025-09-01' = if (!private && operatorAddress != '') {
  parent: cluster
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
  scope: cluster
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

@description('Resource id of the cluster.')
output id string = cluster.id

@description('Host name that `mongodb+srv` resolves.')
output host string = '${cluster.name}.global.mongocluster.cosmos.azure.com'
