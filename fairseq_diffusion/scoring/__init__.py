"""Scoring and comparing translations: metrics, signatures and significance."""
