"""What every room needs: settings, errors, jobs, logging. Knows neither Flask nor torch."""
