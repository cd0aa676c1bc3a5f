"""From resources to answers: pure functions of objects, a time and the arguments of a question."""
