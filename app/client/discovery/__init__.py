"""Many servers behind one client: who is there, which of them is asked, and what is asked again elsewhere."""
