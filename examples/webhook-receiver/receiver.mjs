// A webhook receiver with nothing but Node: checks the signature, keeps what came before in mind,
// and prints each event.
//
//   WEBHOOK_SECRET=whsec_… node receiver.mjs [port]

import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

/** Seconds that a request's timestamp may be off: older ones could be recordings played again. */
const TOLERANCE = 5 * 60
/** Ids that are remembered, so that what comes again is not done again. */
const REMEMBERED = 10_000

/** Whether `secret` signed this very body, now. By Standard Webhooks, https://www.standardwebhooks.com */
export function isAuthentic(secret, headers, body, now = Date.now() / 1000) {
  const id = headers['webhook-id']
  const timestamp = headers['webhook-timestamp']
  const signatures = headers['webhook-signature']
  if (!id || !signatures || !(Math.abs(now - Number(timestamp)) <= TOLERANCE)) return false
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const expected = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest()
  // While a secret is rotated there are several.
  return signatures.split(' ').some((signature) => {
    const [version, text] = signature.split(',', 2)
    const given = Buffer.from(text ?? '', 'base64')
    return version === 'v1' && given.length === expected.length && timingSafeEqual(given, expected)
  })
}

async function read(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  // The signature is over the bytes: JSON that was parsed and written again has others.
  return Buffer.concat(chunks)
}

export function receiver(secret, handle) {
  const seen = new Set()
  return createServer(async (request, response) => {
    const answer = (status) => response.writeHead(status).end()
    try {
      const body = await read(request)
      if (!isAuthentic(secret, request.headers, body)) return answer(401)
      const id = request.headers['webhook-id']
      if (!seen.has(id)) {
        await handle(JSON.parse(body))
        // After it was handled: had it failed, it should come again.
        seen.add(id)
        if (seen.size > REMEMBERED) seen.delete(seen.values().next().value)
      }
      answer(204)
    } catch (error) {
      console.error(error)
      answer(500)
    }
  })
}

if (import.meta.main ?? process.argv[1] === new URL(import.meta.url).pathname) {
  const secret = process.env.WEBHOOK_SECRET
  if (!secret) {
    console.error('Set WEBHOOK_SECRET to the secret in walmill.toml: whsec_…')
    process.exit(2)
  }
  const port = Number(process.argv[2] ?? 9000)
  const print = (event) => console.log(event.type, event.subject, JSON.stringify(event.data))
  receiver(secret, print).listen(port, '127.0.0.1', () => {
    console.log(`Listening on http://127.0.0.1:${port}`)
  })
}
