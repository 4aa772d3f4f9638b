"""The base of any HTTP service on Azure Functions; neither knows nor imports the product."""
