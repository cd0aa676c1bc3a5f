"""XID errors: the catalogue of codes, the ledger of what was seen, and the rule that turns it into findings."""
