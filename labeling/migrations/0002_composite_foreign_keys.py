"""Copies that a query would otherwise join for are kept true by the database itself.

Pair.query repeats the query of both candidates, and Judgment.by_person what its annotator is;
composite foreign keys make any other value impossible. MATCH SIMPLE: a pair without a query (a
cross-query pair) is not checked by them.
"""

from django.db import migrations

FORWARD = """
ALTER TABLE labeling_pair
    ADD CONSTRAINT pair_a_of_query FOREIGN KEY (a_id, query_id)
        REFERENCES labeling_candidate (id, query_id) DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT pair_b_of_query FOREIGN KEY (b_id, query_id)
        REFERENCES labeling_candidate (id, query_id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE labeling_judgment
    ADD CONSTRAINT judgment_by_person_of_annotator FOREIGN KEY (annotator_id, by_person)
        REFERENCES labeling_annotator (id, is_person) DEFERRABLE INITIALLY DEFERRED;
"""

BACKWARD = """
ALTER TABLE labeling_pair DROP CONSTRAINT pair_a_of_query, DROP CONSTRAINT pair_b_of_query;
ALTER TABLE labeling_judgment DROP CONSTRAINT judgment_by_person_of_annotator;
"""


class Migration(migrations.Migration):
    dependencies = [("labeling", "0001_tables")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
