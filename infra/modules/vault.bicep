// The secrets of the service: the keys that sign tokens and receipts, and the key of the digests.

@description('Name: 3 to 24 letters, digits and hyphens.')
@minLength(3)
@maxLength(24)
param name string

@description('Region.')
param location string

@description('Reachable inside the virtual network only.')
param private bool

@description('Workspace that takes the audit log.')
param workspaceId string

@secure()
@description('HS256 key; empty leaves the secret as it is.')
param jwtSecret string

@secure()
@description('Key of the digests; empty leaves the secret as it is.')
param digestKey string

@secure()
@description('Receipt key as a JWK; empty leaves the secret as it is.')
param receiptKey string

@description('When this deployment runs.')
param now string

// The vault warns 30 days before this.
var expires = dateTimeToEpoch(dateTimeAdd(now, 'P1Y'))

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    enablePurgeProtection: true
    enabledForDeployment: false
    enabledForDiskEncryption: false
    enabledForTemplateDeployment: false
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: private ? 'Deny' : 'Allow'
    }
  }
}

resource jwt 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (jwtSecret != '') {
  parent: vault
  name: 'jwt-secret'
  properties: {
    contentType: 'text/plain'
    value: jwtSecret
    attributes: {
      enabled: true
      exp: expires
    }
  }
}

resource digest 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (digestKey != '') {
  parent: vault
  name: 'digest-key'
  properties: {
    contentType: 'text/plain'
    value: digestKey
    attributes: {
      enabled: true
      exp: expires
    }
  }
}

resource receipt 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (receiptKey != '') {
  parent: vault
  name: 'receipt-key'
  properties: {
    contentType: 'application/jwk+json'
    value: receiptKey
    attributes: {
      enabled: true
      exp: expires
    }
  }
}

#disable-next-line use-recent-api-versions // There is no newer one.
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
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

@description('Resource id of the vault.')
output id string = vault.id

@description('Name of the vault.')
output name string = vault.name

@description('Address of the vault.')
output url string = vault.properties.vaultUri
