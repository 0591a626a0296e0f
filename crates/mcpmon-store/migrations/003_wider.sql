-- Repairs are recorded before they are made, and again with what came of them; and they are asked
-- for by service. Rows of before have neither key nor service.
ALTER TABLE audit ADD COLUMN key TEXT;
ALTER TABLE audit ADD COLUMN service TEXT;
CREATE UNIQUE INDEX audit_by_key ON audit (key);
CREATE INDEX audit_of_service ON audit (service, at);

-- The head: checks as they were appended, those of one append packed into a row. What is in
-- check_head is moved here by the code beside this file, which then drops that table.
CREATE TABLE head (
    first  INTEGER PRIMARY KEY, -- number of its first check; the others follow
    checks BLOB NOT NULL
) STRICT;
