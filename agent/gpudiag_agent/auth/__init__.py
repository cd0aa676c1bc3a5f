"""Who may read this node: bearer tokens, checked by the API server (TokenReview), remembered within bounds."""
