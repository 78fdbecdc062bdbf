DROP TABLE session_values;
