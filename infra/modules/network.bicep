// One virtual network: a subnet the app goes out through, one for private endpoints, one for jobs
// (migrations, deployments) that run inside. It has one fixed outgoing address.

@description('Name of the deployment.')
param name string

@description('Region.')
param location string

@description('False makes nothing, and every output is empty.')
param enabled bool

resource outboundAddress 'Microsoft.Network/publicIPAddresses@2024-10-01' = if (enabled) {
  name: '${name}-outbound'
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
  }
}

resource outbound 'Microsoft.Network/natGateways@2024-10-01' = if (enabled) {
  name: name
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIpAddresses: [
      {
        id: outboundAddress.id
      }
    ]
  }
}

resource rules 'Microsoft.Network/networkSecurityGroups@2024-10-01' = if (enabled) {
  name: name
  location: location
  properties: {
    securityRules: [
      {
        name: 'DenyInternetInbound'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource virtualNetwork 'Microsoft.Network/virtualNetworks@2024-10-01' = if (enabled) {
  name: name
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: [
        '10.20.0.0/24'
      ]
    }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: '10.20.0.0/25'
          natGateway: {
            id: outbound.id
          }
          networkSecurityGroup: {
            id: rules.id
          }
          delegations: [
            {
              name: 'flex'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: '10.20.0.128/27'
          networkSecurityGroup: {
            id: rules.id
          }
        }
      }
      {
        name: 'jobs'
        properties: {
          addressPrefix: '10.20.0.160/27'
          natGateway: {
            id: outbound.id
          }
          networkSecurityGroup: {
            id: rules.id
          }
        }
      }
    ]
  }
}

@description('Resource id of the virtual network.')
output id string = enabled ? virtualNetwork.id : ''

@description('Subnet the app goes out through.')
output appSubnetId string = enabled ? '${virtualNetwork.id}/subnets/app' : ''

@description('Subnet of the private endpoints.')
output endpointsSubnetId string = enabled ? '${virtualNetwork.id}/subnets/endpoints' : ''
