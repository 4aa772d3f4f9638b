"""Our application under the adapter of azure-functions as it is, with the worker's loggers as they are."""

import azure.functions as func

from twins.app import create_app

app = func.AsgiFunctionApp(create_app(), http_auth_level=func.AuthLevel.ANONYMOUS)
