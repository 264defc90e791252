"""Weights in forms that compute faster or take less: fused, packed, quantised."""
