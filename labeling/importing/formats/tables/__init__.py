"""Tables with a column mapping: CSV, TSV, Parquet, a JSON array or an object a line; and Quepid's CSV. Imports no Django."""
