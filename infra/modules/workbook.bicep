// The workbook: pictures for the person on call, in Application Insights → Workbooks. docs/OPERATIONS.md says how to read them.

@description('Name of the deployment.')
param name string

@description('Region.')
param location string

@description('Application Insights.')
param insightsId string

// Each query gives rows with a time, by which a chart is drawn. `{grain}` is a minute to a day, as the chosen time range asks for.
var charts = [
  {
    title: 'Decisions by reason'
    visualization: 'areachart'
    query: 'customMetrics | where name == "twins.decisions" | summarize decisions = sum(valueSum) by reason = tostring(customDimensions.reason), bin(timestamp, {grain})'
  }
  {
    title: 'The gate: median and 99th percentile, in milliseconds'
    visualization: 'linechart'
    query: 'requests | where name endswith "/decision" or name endswith "/decisions" | summarize p50 = percentile(duration, 50), p99 = percentile(duration, 99) by bin(timestamp, {grain})'
  }
  {
    title: 'Withdrawals and refusals'
    visualization: 'barchart'
    query: 'customMetrics | where name == "twins.consents" | extend transition = tostring(customDimensions.transition) | where transition in ("withdrawn", "refused") | summarize events = sum(valueSum) by transition, bin(timestamp, {grain})'
  }
  {
    title: 'Twins erased'
    visualization: 'barchart'
    query: 'customMetrics | where name == "twins.consents" | extend transition = tostring(customDimensions.transition) | where transition == "erased" | summarize twins = sum(valueSum) by bin(timestamp, {grain})'
  }
  {
    title: 'Errors of clients (4xx), by problem type'
    visualization: 'areachart'
    query: 'traces | extend status = toint(customDimensions.status), problem = tostring(customDimensions.problem) | where status between (400 .. 499) and isnotempty(problem) | summarize answers = count() by problem, bin(timestamp, {grain})'
  }
  {
    title: 'Errors of the service (5xx), by problem type'
    visualization: 'areachart'
    query: 'traces | extend status = toint(customDimensions.status), problem = tostring(customDimensions.problem) | where status >= 500 and isnotempty(problem) | summarize answers = count() by problem, bin(timestamp, {grain})'
  }
  {
    title: 'Jobs: those that are due, and those that wait for a person'
    visualization: 'linechart'
    query: 'customMetrics | where name in ("twins.outbox.due", "twins.outbox.dead") | summarize jobs = max(valueMax) by name, bin(timestamp, {grain})'
  }
  {
    title: 'Jobs: how long the oldest one that is due has waited, in seconds'
    visualization: 'linechart'
    query: 'customMetrics | where name == "twins.outbox.age" | summarize seconds = max(valueMax) by bin(timestamp, {grain})'
  }
  {
    title: 'Stores that do not answer, by error'
    visualization: 'barchart'
    query: 'traces | where message in ("PostgreSQL is unavailable", "MongoDB is unavailable") | summarize times = count() by message, error = tostring(customDimensions.error), bin(timestamp, {grain})'
  }
  {
    title: 'Key Vault, Entra and identity providers: failed reads'
    visualization: 'barchart'
    query: 'customMetrics | extend error = tostring(customDimensions["error.type"]) | where name in ("twins.vault.errors", "twins.issuers.fetches") and isnotempty(error) | summarize times = sum(valueSum) by name, error, bin(timestamp, {grain})'
  }
  {
    title: 'Ledgers: broken, and skipped in this round'
    visualization: 'linechart'
    query: 'customMetrics | where name in ("twins.ledger.broken", "twins.ledger.skipped") | summarize ledgers = max(valueMax) by name, bin(timestamp, {grain})'
  }
  {
    title: 'Cold starts: instances that were first seen, and the milliseconds of the slowest first answer'
    visualization: 'barchart'
    query: 'requests | summarize arg_min(timestamp, duration) by cloud_RoleInstance | summarize instances = count(), slowest = max(duration) by bin(timestamp, {grain})'
  }
]

var range = {
  type: 9
  name: 'range'
  content: {
    version: 'KqlParameterItem/1.0'
    style: 'pills'
    parameters: [
      {
        version: 'KqlParameterItem/1.0'
        name: 'range'
        label: 'Time range'
        type: 4
        isRequired: true
        value: {
          durationMs: 86400000
        }
        typeSettings: {
          allowCustom: true
          selectableValues: map([3600000, 14400000, 86400000, 604800000, 2592000000], duration => {
            durationMs: duration
          })
        }
      }
    ]
  }
}

var items = map(charts, chart => {
  type: 3
  name: chart.title
  customWidth: '50'
  content: {
    version: 'KqlItem/1.0'
    title: chart.title
    query: replace(chart.query, '{grain}', '{range:grain}')
    visualization: chart.visualization
    timeContextFromParameter: 'range'
    noDataMessage: 'Nothing in this time.'
    noDataMessageStyle: 3
    queryType: 0
    resourceType: 'microsoft.insights/components'
  }
})

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(insightsId, 'on-call')
  location: location
  kind: 'shared'
  properties: {
    displayName: '${name}: on call'
    category: 'workbook'
    sourceId: insightsId
    version: 'Notebook/1.0'
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([range], items)
      fallbackResourceIds: [
        insightsId
      ]
    })
  }
}
