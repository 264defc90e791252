"""What every package needs: settings, errors, jobs, logging. Knows neither Flask nor torch."""
