"""The subcommands of `predictor`: options and output here, the work in the modules beside this package."""
