// What walmill offers to plugins.

// @ts-ignore: decorator
@external("walmill:plugin/log@0.1.0", "log")
declare function hostLog(level: i32, text: usize, length: u32): void;
// @ts-ignore: decorator
@external("walmill:plugin/clock@0.1.0", "now")
declare function hostNow(): i64;

function line(level: i32, message: string): void {
  const bytes = String.UTF8.encode(message);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/** For who looks closely. */
export function debug(message: string): void {
  line(1, message);
}

/** Something worth knowing. */
export function info(message: string): void {
  line(2, message);
}

/** Something that the operator should look at. */
export function warn(message: string): void {
  line(3, message);
}

/** The commit time of what is being processed, in microseconds: the same in every replay. */
export function now(): i64 {
  return hostNow();
}
