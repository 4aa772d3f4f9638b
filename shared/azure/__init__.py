"""Azure Functions and Microsoft Entra: the only place that knows where the service runs."""
