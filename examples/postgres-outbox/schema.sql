-- The outbox: one row per event, inserted in the transaction that changes the data.
CREATE TABLE outbox (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event         text        NOT NULL,
  tenant        text        NOT NULL DEFAULT 'default',
  actor_user_id text,
  data          jsonb       NOT NULL,
  happened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at       timestamptz, -- when emit accepted it
  event_id      text,        -- id of the event
  refused       text         -- error from emit; fix the row and set this to NULL to retry
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL AND refused IS NULL;

CREATE FUNCTION publish_event(event text, actor text, data jsonb, tenant text DEFAULT 'default') RETURNS void LANGUAGE sql AS $$
  INSERT INTO outbox (event, tenant, actor_user_id, data) VALUES (event, tenant, actor, jsonb_strip_nulls(data));
  SELECT pg_notify('outbox', '');  -- sent at commit
$$;

CREATE FUNCTION iso(t timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- A platform, with a trigger per table that publishes the events. A trigger sees the row
-- before and after the change, and application code cannot forget it.
CREATE TABLE users (id text PRIMARY KEY, email text NOT NULL, name text NOT NULL);
CREATE TABLE communities (id text PRIMARY KEY, name text NOT NULL, city text);
CREATE TABLE memberships (
  community_id text NOT NULL REFERENCES communities, user_id text NOT NULL REFERENCES users, added_by text,
  PRIMARY KEY (community_id, user_id));
CREATE TABLE registrations (
  id text PRIMARY KEY, event_id text NOT NULL, user_id text NOT NULL REFERENCES users, payment_id text, status text NOT NULL);
-- extended_by and closed_by are users; an operator of Tidings' console is console:NAME in the other column.
CREATE TABLE discussions (
  id text PRIMARY KEY, tenant text NOT NULL DEFAULT 'default', community_id text REFERENCES communities, title text NOT NULL,
  status text NOT NULL DEFAULT 'open', expires_at timestamptz NOT NULL, extended_by text, extended_by_login text,
  closed_at timestamptz, closed_by text, closed_by_login text, close_reason text,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX discussions_open ON discussions (expires_at, id) WHERE status = 'open';
CREATE INDEX discussions_closed ON discussions (closed_at, id) WHERE status = 'closed';
CREATE TABLE comments (
  id text PRIMARY KEY, discussion_id text NOT NULL REFERENCES discussions, user_id text NOT NULL REFERENCES users, body text NOT NULL);
CREATE TABLE flags (
  comment_id text NOT NULL REFERENCES comments, user_id text NOT NULL REFERENCES users, reason text NOT NULL, PRIMARY KEY (comment_id, user_id));
CREATE TABLE referrals (
  referred_user_id text PRIMARY KEY REFERENCES users, referrer_id text NOT NULL REFERENCES users, code text NOT NULL);

CREATE FUNCTION users_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM publish_event('user.joined_platform', NEW.id, jsonb_build_object('user_id', NEW.id, 'email', NEW.email, 'name', NEW.name));
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION users_publish();

CREATE FUNCTION memberships_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM publish_event('user.joined_community', NEW.user_id,
    jsonb_build_object('community_id', c.id, 'community_name', c.name, 'community_city', c.city)) FROM communities c WHERE c.id = NEW.community_id;
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT ON memberships FOR EACH ROW EXECUTE FUNCTION memberships_publish();

CREATE FUNCTION registrations_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' AND OLD.status NOT IN ('pending', 'waitlisted', 'failed', 'cancelled')
     OR TG_OP = 'UPDATE' AND NEW.status = 'cancelled' AND OLD.status <> 'cancelled' THEN
    -- Deleting what never succeeded, or was cancelled, is a clean-up. So is what runs SET LOCAL outbox.quiet = 'on'.
    -- A platform that knows who cancelled names that user as the actor, and in cancelled_by.
    IF current_setting('outbox.quiet', true) IS DISTINCT FROM 'on' THEN
      PERFORM publish_event('user.cancelled_registration', OLD.user_id, jsonb_build_object(
        'event_id', OLD.event_id, 'registration_id', OLD.id, 'user_id', OLD.user_id, 'previous_status', OLD.status));
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    RETURN NULL;
  ELSIF TG_OP = 'INSERT' AND NEW.status IN ('pending', 'success', 'failed')
     OR TG_OP = 'UPDATE' AND NEW.status IN ('success', 'failed') AND NEW.status <> OLD.status THEN
    PERFORM publish_event('user.registered_event', NEW.user_id,
      jsonb_build_object('event_id', NEW.event_id, 'registration_id', NEW.id, 'payment_id', NEW.payment_id, 'status', NEW.status));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON registrations FOR EACH ROW EXECUTE FUNCTION registrations_publish();

CREATE FUNCTION comments_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM publish_event('user.posted_comment', NEW.user_id,
    jsonb_build_object('discussion_id', NEW.discussion_id, 'comment_id', NEW.id, 'comment_text', NEW.body));
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT ON comments FOR EACH ROW EXECUTE FUNCTION comments_publish();

CREATE FUNCTION flags_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM publish_event('user.flagged_comment', NEW.user_id,
    jsonb_build_object('comment_id', c.id, 'flagged_user_id', c.user_id, 'reason', NEW.reason)) FROM comments c WHERE c.id = NEW.comment_id;
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT ON flags FOR EACH ROW EXECUTE FUNCTION flags_publish();

CREATE FUNCTION referrals_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM publish_event('user.referred_user', NEW.referrer_id,
    jsonb_build_object('referred_user_id', NEW.referred_user_id, 'referrer_id', NEW.referrer_id, 'referral_code', NEW.code));
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER INSERT ON referrals FOR EACH ROW EXECUTE FUNCTION referrals_publish();

CREATE FUNCTION discussions_publish() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE about jsonb := jsonb_build_object('discussion_id', NEW.id, 'title', NEW.title, 'community_id', NEW.community_id,
  'community_name', (SELECT name FROM communities WHERE id = NEW.community_id));
BEGIN
  IF OLD.status = 'open' AND NEW.status = 'closed' AND NEW.close_reason = 'expired' THEN
    PERFORM publish_event('discussion.auto_closed', NULL, about || jsonb_build_object('closed_at', iso(NEW.closed_at)), NEW.tenant);
  ELSIF OLD.status = 'open' AND NEW.status = 'open' AND NEW.expires_at > OLD.expires_at AND NEW.expires_at > now() THEN
    PERFORM publish_event('discussion.extended', NEW.extended_by, about || jsonb_build_object('new_expires_at', iso(NEW.expires_at),
      'previous_expires_at', iso(OLD.expires_at), 'extended_by_login', CASE WHEN NEW.extended_by IS NULL THEN NEW.extended_by_login END), NEW.tenant);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER publish AFTER UPDATE ON discussions FOR EACH ROW EXECUTE FUNCTION discussions_publish();

-- The scheduled close: run it every few minutes, by pg_cron, the relay (--close-every) or a cron job.
--   SELECT cron.schedule('close-discussions', '*/4 * * * *', 'SELECT close_expired_discussions()');
-- A discussion that is extended at the same time is locked by one of the two, and the other sees the result.
CREATE FUNCTION close_expired_discussions() RETURNS bigint LANGUAGE sql AS $$
  WITH closed AS (
    UPDATE discussions SET status = 'closed', close_reason = 'expired', closed_at = now(), updated_at = now()
    WHERE status = 'open' AND expires_at <= now() RETURNING 1)
  SELECT count(*) FROM closed
$$;
