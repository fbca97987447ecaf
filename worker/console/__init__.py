"""The live console: a page in the browser, served by itself, that costs the fleet next to nothing."""
