"""The top floor: profiles, runs and their records, notebooks, the ledger, figures."""
