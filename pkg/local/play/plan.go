// Package play simulates a community for demonstrations and tests: it plans users who
// sign up, join communities, register, comment, flag comments and refer others, and
// writes them to the platform table. A plan depends only on its options. It contains
// every event type, for every community size, and each step names the event that it
// causes, so that a caller can count the events that receivers must get.
package play

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/platform"
)

// Options describe a simulation.
type Options struct {
	Seed    uint64
	Members int
	Hours   float64 // simulated hours
	Speed   float64 // simulated hours per hour
	Start   time.Time
	// Run is part of every id, so that several simulations can share a table.
	Run    string
	Tenant string
}

// Bounds of Options.
const (
	MinMembers = 5
	MaxMembers = 100_000
	MinHours   = 1
	MaxHours   = 24 * 14
)

// Validate checks the bounds.
func (o Options) Validate() error {
	switch {
	case o.Members < MinMembers || o.Members > MaxMembers:
		return fmt.Errorf("members must be between %d and %d", MinMembers, MaxMembers)
	case !(o.Hours >= MinHours && o.Hours <= MaxHours):
		return fmt.Errorf("hours must be between %d and %d", MinHours, MaxHours)
	case !(o.Speed > 0) || math.IsInf(o.Speed, 0):
		return fmt.Errorf("speed must be a positive number such as 600x")
	}
	return nil
}

// Step is one write to the platform table, or a run of the schedule that closes expired
// discussions. One of Put, Delete, Extend and Close is set.
type Step struct {
	At     time.Time     // due time
	Played time.Duration // simulated time since the start
	// EventType is the event that the step causes, "" for none. Close causes one event
	// per closed discussion.
	EventType string

	Put    platform.Record
	Delete *platform.Key
	Extend *platform.Extension
	Close  bool
}

// partition is the key of the steps whose order must be kept.
func (s Step) partition() string {
	switch {
	case s.Put != nil:
		return s.Put.Key().PK
	case s.Delete != nil:
		return s.Delete.PK
	case s.Extend != nil:
		return platform.DiscussionKey(s.Extend.ID).PK
	}
	return ""
}

// Event types.
const (
	signedUp   = "user.joined_platform"
	joined     = "user.joined_community"
	registered = "user.registered_event"
	cancelled  = "user.cancelled_registration"
	commented  = "user.posted_comment"
	flagged    = "user.flagged_comment"
	referred   = "user.referred_user"
	autoClosed = "discussion.auto_closed"
	extended   = "discussion.extended"
)

// member is a user since a simulated time.
type member struct {
	id, name string
	since    time.Duration
}

// planner collects the steps.
type planner struct {
	Options
	random *rand.Rand
	end    time.Duration
	steps  []Step
	began  map[string]bool // names of occurs that have occurred
	counts map[string]int  // last id per kind
}

// Plan returns the steps of a simulation in time order.
func Plan(o Options) ([]Step, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Tenant == "" {
		o.Tenant = event.DefaultTenant
	}
	p := &planner{
		Options: o, random: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)), end: time.Duration(o.Hours * float64(time.Hour)),
		began: map[string]bool{}, counts: map[string]int{},
	}
	people := p.signUps()
	for i, c := range p.communities() {
		members := p.joins(c, i, people)
		p.events(c, members)
		p.discussions(c, members)
	}
	// The platform's hourly schedule, in simulated hours.
	for at := time.Hour; at < p.end; at += time.Hour {
		p.add(at, Step{EventType: autoClosed, Close: true})
	}
	p.steps = append(p.steps, Step{At: p.realTime(p.end), Played: p.end, EventType: autoClosed, Close: true})
	slices.SortStableFunc(p.steps, func(a, b Step) int { return a.At.Compare(b.At) })
	return p.steps, nil
}

// realTime converts a simulated time. After the end of the simulation, time passes at
// normal speed, so that open discussions stay open for hours.
func (p *planner) realTime(at time.Duration) time.Time {
	within := min(at, p.end)
	return p.Start.Add(time.Duration(float64(within)/p.Speed) + (at - within)).Truncate(time.Millisecond)
}

// add appends a step and reports true, unless the time is after the end.
func (p *planner) add(at time.Duration, s Step) bool {
	if at >= p.end {
		return false
	}
	s.At, s.Played = p.realTime(at), at
	p.steps = append(p.steps, s)
	return true
}

func (p *planner) id(kind string) string {
	p.counts[kind]++
	return fmt.Sprintf("%s_%s_%d", kind, p.Run, p.counts[kind])
}

// chance is true with a probability, and always before the name has occurred.
func (p *planner) chance(name string, probability float64) bool {
	return p.random.Float64() < probability || !p.began[name]
}

// occurs adds a step and records that the name has occurred.
func (p *planner) occurs(name string, at time.Duration, s Step) bool {
	added := p.add(at, s)
	p.began[name] = p.began[name] || added
	return added
}

// after adds an exponentially distributed delay with a mean.
func (p *planner) after(at, mean time.Duration) time.Duration {
	return at + time.Duration(p.random.ExpFloat64()*float64(mean)) + time.Second
}

func (p *planner) pick(list []string) string { return list[p.random.IntN(len(list))] }

// activeTime returns a random time, more often in the afternoon than at night.
func (p *planner) activeTime(from, to time.Duration) time.Duration {
	for {
		at := from + time.Duration(p.random.Float64()*float64(to-from))
		hour := math.Mod(at.Hours(), 24)
		awake := 0.55 - 0.45*math.Cos((hour-4)/24*2*math.Pi) // 0.1 at 4:00, 1 at 16:00
		if p.random.Float64() < awake {
			return at
		}
	}
}

func (p *planner) common(at time.Duration) platform.Common {
	return platform.Common{Tenant: p.Tenant, CreatedAt: p.realTime(at), UpdatedAt: p.realTime(at), RequestID: fmt.Sprintf("req-%08x", p.random.Uint32())}
}

// signUps adds all users, a tenth of them in the first minutes, some of them referred by
// an earlier user.
func (p *planner) signUps() []member {
	early := max(3, p.Members/10)
	people := make([]member, p.Members)
	for i := range people {
		if i < early {
			people[i].since = time.Duration(p.random.Float64() * float64(p.end) / 50)
		} else {
			people[i].since = p.activeTime(p.end/50, p.end*9/10)
		}
	}
	slices.SortFunc(people, func(a, b member) int { return int(a.since - b.since) })
	for i := range people {
		first, last := p.pick(firstNames), p.pick(lastNames)
		people[i].id, people[i].name = p.id("u"), first+" "+last
		at := people[i].since
		p.add(at, Step{EventType: signedUp, Put: platform.User{
			Common: p.common(at), ID: people[i].id, Name: people[i].name,
			Email: fmt.Sprintf("%s.%s.%d@example.org", ascii(first), ascii(last), i+1),
		}})
		if i > 0 && p.chance("referral", 0.2) {
			friend := people[p.random.IntN(i)]
			p.occurs("referral", at+time.Second, Step{EventType: referred, Put: platform.Referral{
				Common: p.common(at + time.Second), ReferrerID: friend.id, ReferrerName: friend.name,
				ReferredUserID: people[i].id, ReferredUserName: people[i].name,
				Code: fmt.Sprintf("FRIEND-%04X", p.random.IntN(1<<16)),
			}})
		}
	}
	return people
}

type community struct{ id, name, city string }

func (p *planner) communities() []community {
	n := min(max(2, p.Members/40), len(cities)*len(subjects))
	list := make([]community, n)
	for i := range list {
		city := cities[i%len(cities)]
		list[i] = community{id: p.id("c"), name: subjects[(i+i/len(cities))%len(subjects)] + " " + city, city: city}
		if i%5 == 4 { // online communities have no city
			list[i].name, list[i].city = subjects[i%len(subjects)]+" Online", ""
		}
	}
	return list
}

// joins adds members to a community, fewer with each rank; organisers add some of them.
func (p *planner) joins(c community, rank int, people []member) []member {
	share := 0.7 / math.Sqrt(float64(rank+1))
	var members []member
	for i, person := range people {
		if i > 2 && p.random.Float64() > share { // the first three join every community
			continue
		}
		at := p.after(person.since, p.end/150)
		m := platform.Membership{Common: p.common(at), UserID: person.id, CommunityID: c.id, CommunityName: c.name, CommunityCity: c.city}
		name := "joined"
		if len(members) > 0 && p.chance("added", 0.15) {
			m.AddedBy, name = members[0].id, "added"
		}
		if p.occurs(name, at, Step{EventType: joined, Put: m}) {
			members = append(members, member{person.id, person.name, at})
		}
	}
	slices.SortFunc(members, func(a, b member) int { return int(a.since - b.since) })
	return members
}

// events adds registrations for a community's events, with payments for some.
func (p *planner) events(c community, members []member) {
	type meeting struct {
		id, name string
		paid     bool
	}
	meetings := make([]meeting, 2+len(members)/15)
	for i := range meetings {
		meetings[i] = meeting{p.id("e"), fmt.Sprintf("%s, evening %d", c.name, i+1), i%2 == 0}
	}
	for i, m := range members {
		if p.random.Float64() > 0.4 && i > 1 {
			continue
		}
		where := meetings[i%len(meetings)]
		at := p.after(m.since, p.end/80)
		r := platform.Registration{
			Common: p.common(at), ID: p.id("r"), EventID: where.id, EventName: where.name, CommunityID: c.id, CommunityName: c.name, UserID: m.id, Status: platform.Success,
		}
		if where.paid {
			r.PaymentID, r.Price, r.Currency, r.Status = p.id("p"), "12.5", "EUR", platform.Pending
		}
		if !p.add(at, Step{EventType: registered, Put: r}) {
			continue
		}
		to := func(status platform.RegistrationStatus, eventType string) {
			at = p.after(at, p.end/200)
			r.Status, r.UpdatedAt = status, p.realTime(at)
			p.add(at, Step{EventType: eventType, Put: r})
		}
		if where.paid {
			if p.random.Float64() < 0.15 {
				to(platform.Failed, registered)
				if p.random.Float64() < 0.5 {
					continue // does not retry the payment
				}
				to(platform.Pending, "") // retries the payment
			}
			to(platform.Success, registered)
		}
		if p.chance("cancelled", 0.1) {
			at = p.after(at, p.end/30)
			p.cancel(r, at, members[0])
		}
	}
}

// cancel adds the cancellation of a registration. A third are deletions; of the others,
// half are an organiser's.
func (p *planner) cancel(r platform.Registration, at time.Duration, organiser member) {
	key := r.Key()
	way := p.counts["cancelled"] % 3
	p.counts["cancelled"]++
	if way == 0 {
		p.occurs("cancelled", at, Step{EventType: cancelled, Delete: &key})
		return
	}
	r.Status, r.UpdatedAt, r.CancelledAt, r.CancelledBy = platform.Cancelled, p.realTime(at), p.realTime(at), r.UserID
	if way == 2 {
		r.CancelledBy, r.CancelReason = organiser.id, "the venue is closed"
	}
	if p.occurs("cancelled", at, Step{EventType: cancelled, Put: r}) {
		p.add(p.after(at, p.end/100), Step{Delete: &key}) // it is cancelled already
	}
}

// discussions adds discussions with comments; some expire, some are extended.
func (p *planner) discussions(c community, members []member) {
	if len(members) == 0 {
		return
	}
	for i := range 1 + len(members)/6 {
		starter := members[min(i*6, len(members)-1)]
		at := p.after(starter.since, p.end/60)
		life := p.end/12 + time.Duration(p.random.Float64()*float64(p.end)/4)
		if i%4 == 3 {
			life = p.end + time.Duration(p.random.Float64()*float64(72*time.Hour)) // ends after the simulation
		}
		ends := at + life
		d := platform.Discussion{
			Common: p.common(at), ID: p.id("d"), CommunityID: c.id, CommunityName: c.name, Title: p.pick(titles), Status: platform.Open, ExpiresAt: p.realTime(ends),
		}
		if !p.add(at, Step{Put: d}) {
			continue
		}
		// The first discussion expires, the second is extended.
		if !p.began["expiry"] {
			p.began["expiry"] = true
		} else if p.chance("extended", 0.2) {
			when := ends - time.Duration((0.2+0.3*p.random.Float64())*float64(life))
			ends += life
			p.occurs("extended", when, Step{EventType: extended, Extend: &platform.Extension{
				Tenant: p.Tenant, ID: d.ID, To: p.realTime(ends), By: members[0].id, At: p.realTime(when),
			}})
		}
		p.comments(d, at, min(ends, p.end), members)
	}
}

// comments adds comments to a discussion, and flags for a few.
func (p *planner) comments(d platform.Discussion, from, to time.Duration, members []member) {
	for range 1 + int(p.random.ExpFloat64()*5) {
		at := from + time.Second + time.Duration(p.random.Float64()*p.random.Float64()*float64(to-from)) // most comments early
		there, _ := slices.BinarySearchFunc(members, at, func(m member, at time.Duration) int { return int(m.since - at) })
		if there == 0 {
			continue
		}
		author := members[p.random.IntN(there)]
		c := platform.Comment{
			Common: p.common(at), ID: p.id("m"), DiscussionID: d.ID, DiscussionTitle: d.Title, CommunityID: d.CommunityID, CommunityName: d.CommunityName,
			UserID: author.id, UserName: author.name, Text: p.words(),
		}
		if !p.add(at, Step{EventType: commented, Put: c}) || there < 2 || !p.chance("flag", 0.03) {
			continue
		}
		reader := members[p.random.IntN(there)]
		if reader.id == author.id {
			reader = members[0]
			if reader.id == author.id {
				reader = members[1]
			}
		}
		when := p.after(at, p.end/500)
		p.occurs("flag", when, Step{EventType: flagged, Put: platform.Flag{
			Common: p.common(when), CommentID: c.ID, CommentText: c.Text, DiscussionID: d.ID, DiscussionTitle: d.Title,
			CommunityID: d.CommunityID, CommunityName: d.CommunityName, UserID: reader.id, FlaggedUserID: author.id, FlaggedUserName: author.name,
			Reason: p.pick(complaints),
		}})
	}
}

// words is the text of a comment.
func (p *planner) words() string {
	text := []string{p.pick(sentences)}
	for p.random.Float64() < 0.4 {
		text = append(text, p.pick(sentences))
	}
	return strings.Join(text, " ")
}

// ascii transliterates a name for an email address.
func ascii(name string) string {
	return strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "é", "e", "ø", "o", "ł", "l", "ç", "c", "ñ", "n", "á", "a", "ó", "o", "í", "i", "'", "").Replace(strings.ToLower(name))
}

var (
	firstNames = []string{"Ada", "Grace", "Lin", "Mara", "Jonas", "Aylin", "Tomás", "Ingrid", "Kofi", "Priya", "Noah", "Zoé", "Emeka", "Yuki", "Søren",
		"Paweł", "Inés", "Amira", "Lukas", "Chloé", "Diego", "Fatima", "Jürgen", "Mei", "Olga", "Ravi", "Sana", "Theo", "Vera", "Björn"}
	lastNames = []string{"Lovelace", "Hopper", "Okafor", "Müller", "García", "Novak", "Tanaka", "Haddad", "Jensen", "Kowalski", "Rossi", "Silva", "Weiß",
		"Patel", "Nguyen", "O'Brien", "Dubois", "Schäfer", "Lindqvist", "Kaya", "Mensah", "Petrov", "Yilmaz", "Castro", "Bauer"}
	cities   = []string{"Berlin", "Hamburg", "Lisbon", "Nairobi", "Kraków", "Lyon", "Porto", "Vienna", "Zürich", "Osaka", "Montréal", "Leeds"}
	subjects = []string{"Gophers", "Board Games", "Trail Runners", "Climate Café", "Makers", "Choir", "Street Photography", "Chess", "Urban Gardeners", "Book Club"}
	titles   = []string{"Who brings the projector?", "Venue for the next evening", "Ideas for talks", "Sharing a ride", "What shall we read next?",
		"New here: say hello", "Feedback on last week", "Budget for snacks", "A date that suits everybody", "Summer outing", "Lost: one umbrella", "Volunteers wanted"}
	sentences = []string{"Count me in.", "I can bring cables & adapters.", "Does Thursday suit everybody?", "Last time was great, thank you!", "I'd rather meet at 7 <pm>.",
		"Somebody should ask the library.", "Grüße aus Köln!", "+1", "Is it wheelchair accessible?", "I know somebody who could speak about that.", "Let's vote.",
		"Here is the map: https://maps.example.org/?q=42&z=15", "Can't make it, sorry.", "How much is it?", "See you there 🎉", "What about the rain?", "\"Next week\", they said.", "Me too."}
	complaints = []string{"spam", "rude", "off topic", "advertising", "personal data"}
)
