"""Who calls over HTTP and what they may do: the API server decides both, answers are kept for seconds."""
