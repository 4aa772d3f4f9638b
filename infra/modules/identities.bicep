// Two identities: one serves requests, one changes schemas. Neither has a secret.

@description('Name of the deployment.')
param name string

@description('Region.')
param location string

@description('owner/name of the repository whose workflow migrates; empty for none.')
param githubRepository string

@description('Environment of that repository.')
param githubEnvironment string

resource app 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${name}-app'
  location: location
}

resource migrate 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${name}-migrate'
  location: location
}

resource github 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = if (githubRepository != '') {
  parent: migrate
  name: 'github'
  properties: {
    issuer: 'https://token.actions.githubusercontent.com'
    subject: 'repo:${githubRepository}:environment:${githubEnvironment}'
    audiences: [
      'api://AzureADTokenExchange'
    ]
  }
}

@description('Resource id of the serving identity.')
output appId string = app.id

@description('Name of the serving identity.')
output appName string = app.name

@description('Client id of the serving identity.')
output appClientId string = app.properties.clientId

@description('Object id of the serving identity.')
output appPrincipalId string = app.properties.principalId

@description('Name of the migration identity.')
output migrateName string = migrate.name

@description('Client id of the migration identity.')
output migrateClientId string = migrate.properties.clientId

@description('Object id of the migration identity.')
output migratePrincipalId string = migrate.properties.principalId
