"""SpotCheck.project repeats what three joins would say; a trigger fills it in, so that no other value can be stored."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION labeling_spotcheck_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT query.project_id INTO NEW.project_id
    FROM labeling_pair pair
    JOIN labeling_candidate candidate ON candidate.id = pair.a_id
    JOIN labeling_query query ON query.id = candidate.query_id
    WHERE pair.id = NEW.pair_id;
    RETURN NEW;
END $$;
CREATE TRIGGER spot_check_project BEFORE INSERT OR UPDATE OF pair_id, project_id ON labeling_spotcheck
    FOR EACH ROW EXECUTE FUNCTION labeling_spotcheck_project();
UPDATE labeling_spotcheck SET project_id = NULL;
"""

BACKWARD = """
DROP TRIGGER spot_check_project ON labeling_spotcheck;
DROP FUNCTION labeling_spotcheck_project();
"""


class Migration(migrations.Migration):
    dependencies = [("labeling", "0005_people_compare")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
