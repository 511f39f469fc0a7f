"""Builds the files that are shipped beside the package: the manifests of plugins, extension, bundle and registry."""
