"""TLS to the agents: whom the operator believes, and the certificate that it makes and renews for them itself."""
