"""The search for decisions: plan, session, search, model, conclude, journal."""
