// Every bound and every wait of the client, in one place; times in milliseconds.

/** The ceiling of the first wait; it doubles up to the longest. A wait is a random part of its ceiling. */
export const FIRST_WAIT_MS = 1_000;
export const LONGEST_WAIT_MS = 30_000;
/** A connection that held so long starts the waits anew. */
export const HELD_MS = 10_000;
/** From the call for a token to `connected`. */
export const CONNECT_MS = 15_000;
/** Silence after which the server is asked, when it does not say one. */
export const HEARTBEAT_MS = 30_000;
/** How long the answer to that may take. */
export const PONG_MS = 5_000;
/** While a machine sleeps its timers stand still, the clock does not: so soon after waking it is looked at. */
export const WAKE_MS = 5_000;
/** The next call for a token, when one could not be renewed. */
export const RENEW_AGAIN_MS = 5_000;
/** The longest wait that an HTTP status can ask for: it may be a proxy's. */
export const LONGEST_ADVICE_MS = 60_000;
/** How long a POST may take: until it is over the next ones wait. */
export const POST_MS = 8_000;
/** So many WebSockets in a row that break before they are open, and an event stream is tried. */
export const MOST_BLOCKED = 3;
/** Proxies take at most 8 KiB of a request line: rooms that would make the URL longer than this are joined by messages. */
export const URL_CHARACTERS = 6_000;
/** Messages among which a repeated one is found. */
export const MOST_RECENT = 128;
/** Events that a loop may be behind. */
export const MOST_BEHIND = 10_000;
/** How often a tab on the screen looks for its leader, and how long that may take to answer. */
export const CHECK_MS = 10_000;
export const ANSWER_MS = 5_000;
