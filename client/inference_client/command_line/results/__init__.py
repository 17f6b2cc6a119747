"""Results that are written as they come: as CSV, JSON Lines or Parquet, and gone on with after a break."""
