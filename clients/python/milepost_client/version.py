"""Which release of the client this is; the service sees it as the user agent."""

VERSION = "0.1.0"
