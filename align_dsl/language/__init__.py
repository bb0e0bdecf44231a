"""From YAML text to the typed program. Pure: strings and files in, values and diagnostics out."""
