"""One paid job, from request to kept picture."""
