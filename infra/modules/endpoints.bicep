// A private endpoint and a private DNS zone for everything that is closed to the internet.

@description('Name of the deployment.')
param name string

@description('Region.')
param location string

@description('False makes nothing.')
param enabled bool

@description('Virtual network that resolves the private names.')
param virtualNetworkId string

@description('Subnet of the endpoints.')
param subnetId string

@description('What to make reachable.')
param targets {
  name: string
  id: string
  group: string
  zone: string
}[]

var wanted = enabled ? targets : []

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for target in wanted: {
    name: target.zone
    location: 'global'
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (target, index) in wanted: {
    parent: zones[index]
    name: name
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: virtualNetworkId
      }
    }
  }
]

resource privateEndpoints 'Microsoft.Network/privateEndpoints@2024-10-01' = [
  for target in wanted: {
    name: '${name}-${target.name}'
    location: location
    properties: {
      subnet: {
        id: subnetId
      }
      privateLinkServiceConnections: [
        {
          name: target.name
          properties: {
            privateLinkServiceId: target.id
            groupIds: [
              target.group
            ]
          }
        }
      ]
    }
  }
]

resource zoneGroups 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-10-01' = [
  for (target, index) in wanted: {
    parent: privateEndpoints[index]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: target.name
          properties: {
            privateDnsZoneId: zones[index].id
          }
        }
      ]
    }
  }
]
