"""Our application under the unchanged adapter of azure-functions, with the worker's unchanged loggers."""

import azure.functions as func

from twins.app import create_app

app = func.AsgiFunctionApp(create_app(), http_auth_level=func.AuthLevel.ANONYMOUS)
