// The alerts. docs/OPERATIONS.md says what to do for each of them.

@description('Name of the deployment.')
param name string

@description('Region.')
param location string

@description('Where alerts are mailed to.')
param email string

@description('Application Insights.')
param insightsId string

@description('Key Vault.')
param vaultId string

@description('PostgreSQL server.')
param postgresId string

@description('DocumentDB cluster.')
param documentDbId string

@description('Base address that the availability tests call.')
param testedUrl string

@description('Whether anything outside can call it.')
param tested bool

var probes = tested
  ? [
      'health'
      'ready'
    ]
  : []

// Each query gives rows with a time and a `value`; an alert fires when one passes its threshold.
var logAlerts = [
  {
    name: 'server-errors'
    description: 'More than 2 % of requests end in 5xx.'
    severity: 1
    window: 'PT5M'
    operator: 'GreaterThan'
    threshold: 2
    query: 'requests | where url !endswith "/ready" | summarize total = count(), failed = countif(toint(resultCode) >= 500) by bin(timestamp, 5m) | where total >= 20 | project timestamp, value = 100.0 * failed / total'
  }
  {
    name: 'slow'
    description: 'The 95th percentile of API requests is above 500 ms.'
    severity: 2
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 500
    query: 'requests | where url has "/api/" | summarize value = percentile(duration, 95), total = count() by bin(timestamp, 5m) | where total >= 20 | project timestamp, value'
  }
  {
    name: 'outbox-age'
    description: 'An erasure job that is due has waited for more than 15 minutes: nobody takes jobs up.'
    severity: 2
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 900
    query: 'customMetrics | where name == "twins.outbox.age" | summarize value = max(valueMax) by bin(timestamp, 5m)'
  }
  {
    name: 'dead-letters'
    description: 'An erasure job has failed for hours and is given up.'
    severity: 1
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'customMetrics | where name == "twins.outbox.dead" | summarize value = max(valueMax) by bin(timestamp, 5m)'
  }
  {
    name: 'heartbeat'
    description: 'No sign of the timer for 15 minutes: it, the database or the telemetry is down.'
    severity: 1
    window: 'PT15M'
    operator: 'LessThan'
    threshold: 1
    query: 'customMetrics | where name == "twins.outbox.age" | summarize value = count() | extend timestamp = now()'
  }
  {
    name: 'broken-record'
    description: 'A ledger does not verify, or a document that PostgreSQL knows of is missing or has changed.'
    severity: 0
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'traces | where message in ("Ledger is broken", "Persona document is missing", "Persona document has changed") | summarize value = count() by bin(timestamp, 5m)'
  }
  {
    name: 'broken-ledger'
    description: 'The daily round of verification has found a ledger whose events and rows differ.'
    severity: 0
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'customMetrics | where name == "twins.ledger.broken" | summarize value = max(valueMax) by bin(timestamp, 5m)'
  }
  {
    name: 'restored'
    description: 'PostgreSQL lacks what the journal has, or a restore is not made good: the gate says no.'
    severity: 0
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'customMetrics | where name in ("twins.restore.closed", "twins.restore.unconfirmed") | summarize value = max(valueMax) by bin(timestamp, 5m)'
  }
  {
    name: 'vault-errors'
    description: 'Secrets cannot be read from Key Vault, or tokens for the databases cannot be got from Entra; the service goes on with those it has.'
    severity: 2
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'customMetrics | where name == "twins.vault.errors" | summarize value = sum(valueSum) by bin(timestamp, 5m)'
  }
  {
    name: 'issuer-keys'
    description: 'The keys of an identity provider cannot be fetched; those that are known serve for a day.'
    severity: 2
    window: 'PT15M'
    operator: 'GreaterThan'
    threshold: 0
    query: 'customMetrics | where name == "twins.issuers.fetches" and isnotempty(customDimensions["error.type"]) | summarize value = sum(valueSum) by bin(timestamp, 5m)'
  }
]

var metricAlerts = [
  {
    name: 'postgres-storage'
    description: 'The disk of PostgreSQL is more than 80 % full.'
    scope: postgresId
    namespace: 'Microsoft.DBforPostgreSQL/flexibleServers'
    metric: 'storage_percent'
  }
  {
    name: 'postgres-cpu'
    description: 'The processors of PostgreSQL are more than 80 % busy.'
    scope: postgresId
    namespace: 'Microsoft.DBforPostgreSQL/flexibleServers'
    metric: 'cpu_percent'
  }
  {
    name: 'documentdb-storage'
    description: 'The disk of DocumentDB is more than 80 % full.'
    scope: documentDbId
    namespace: 'Microsoft.DocumentDB/mongoClusters'
    metric: 'StoragePercent'
  }
]

resource operators 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: name
  location: 'global'
  properties: {
    enabled: true
    groupShortName: 'twins'
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource tests 'Microsoft.Insights/webtests@2022-06-15' = [
  for probe in probes: {
    name: '${name}-${probe}'
    location: location
    kind: 'standard'
    // Without this tag the portal does not find the test.
    tags: {
      'hidden-link:${insightsId}': 'Resource'
    }
    properties: {
      SyntheticMonitorId: '${name}-${probe}'
      Name: '${name}-${probe}'
      Kind: 'standard'
      Enabled: true
      Frequency: 300
      Timeout: 30
      RetryEnabled: true
      Locations: [
        {
          Id: 'emea-nl-ams-azr'
        }
        {
          Id: 'emea-gb-db3-azr'
        }
        {
          Id: 'emea-fr-pra-edge'
        }
        {
          Id: 'us-va-ash-azr'
        }
        {
          Id: 'apac-sg-sin-azr'
        }
      ]
      Request: {
        RequestUrl: '${testedUrl}/${probe}'
        HttpVerb: 'GET'
        ParseDependentRequests: false
      }
      ValidationRules: {
        ExpectedHttpStatusCode: 200
        SSLCheck: true
        SSLCertRemainingLifetimeCheck: 14
      }
    }
  }
]

resource availability 'Microsoft.Insights/metricAlerts@2026-01-01' = [
  for (probe, index) in probes: {
    name: '${name}-availability-${probe}'
    location: 'global'
    properties: {
      description: '/${probe} fails from two places and more.'
      severity: 0
      enabled: true
      autoMitigate: true
      scopes: [
        tests[index].id
        insightsId
      ]
      evaluationFrequency: 'PT1M'
      windowSize: 'PT5M'
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.WebtestLocationAvailabilityCriteria'
        webTestId: tests[index].id
        componentId: insightsId
        failedLocationCount: 2
      }
      actions: [
        {
          actionGroupId: operators.id
        }
      ]
    }
  }
]

resource logs 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for alert in logAlerts: {
    name: '${name}-${alert.name}'
    location: location
    properties: {
      displayName: '${name}-${alert.name}'
      description: alert.description
      severity: alert.severity
      enabled: true
      autoMitigate: true
      scopes: [
        insightsId
      ]
      evaluationFrequency: 'PT5M'
      windowSize: alert.window
      // The metric and its tables exist only once the first telemetry has arrived.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: alert.query
            timeAggregation: 'Maximum'
            metricMeasureColumn: 'value'
            operator: alert.operator
            threshold: alert.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: [
          operators.id
        ]
      }
    }
  }
]

resource metrics 'Microsoft.Insights/metricAlerts@2026-01-01' = [
  for alert in metricAlerts: {
    name: '${name}-${alert.name}'
    location: 'global'
    properties: {
      description: alert.description
      severity: 2
      enabled: true
      autoMitigate: true
      scopes: [
        alert.scope
      ]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            name: alert.name
            criterionType: 'StaticThresholdCriterion'
            metricNamespace: alert.namespace
            metricName: alert.metric
            timeAggregation: 'Average'
            operator: 'GreaterThan'
            threshold: 80
          }
        ]
      }
      actions: [
        {
          actionGroupId: operators.id
        }
      ]
    }
  }
]

// The vault itself sends these events, 30 days before a secret expires and when it has expired.
resource vaultEvents 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: '${name}-vault'
  location: location
  properties: {
    source: vaultId
    topicType: 'Microsoft.KeyVault.vaults'
  }
}

resource expiringSecrets 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = {
  parent: vaultEvents
  name: 'expiring-secrets'
  properties: {
    eventDeliverySchema: 'CloudEventSchemaV1_0'
    filter: {
      includedEventTypes: [
        'Microsoft.KeyVault.SecretNearExpiry'
        'Microsoft.KeyVault.SecretExpired'
      ]
    }
    destination: {
      endpointType: 'MonitorAlert'
      properties: {
        severity: 'Sev2'
        description: 'A secret expires within 30 days, or has expired.'
        actionGroups: [
          operators.id
        ]
      }
    }
  }
}
