"""Creating diagnostics: what is allowed, what exactly is created, and in which order it is checked."""
