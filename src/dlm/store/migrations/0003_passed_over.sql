-- A staged pair that an apply of the accepted ones left behind. Without this, saying `apply` again would write it.
ALTER TABLE staged_pairs ADD COLUMN passed_over INTEGER NOT NULL DEFAULT 0;
