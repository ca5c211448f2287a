// Asks loragate about a request and lets it pass on 200 alone. Whatever else happens, an exception
// in this file included, ends with an answer that is not the image server's.

const REFUSALS = [400, 403, 413, 503];
const HANDED_ON = ['Content-Type', 'Retry-After', 'X-Loragate-Decision-Id', 'X-Loragate-Verdict'];

async function guard(r) {
    // Without a body of its own, the question carries the body and headers of the request.
    const answer = await r.subrequest('/_loragate', {method: 'POST'});
    if (answer.status === 200) {
        r.internalRedirect('@image_server');
    } else if (isFromLoragate(answer)) {
        HANDED_ON.forEach((name) => {
            const value = answer.headersOut[name];
            if (value !== undefined) {
                r.headersOut[name] = value;
            }
        });
        r.return(answer.status, answer.responseText);
    } else {
        r.headersOut['Content-Type'] = 'application/json';
        r.return(503, '{"detail":"loragate gave no answer, so the request is refused"}\n');
    }
}

// Pages that nginx makes itself, when loragate is away or slow, are HTML.
function isFromLoragate(answer) {
    const type = answer.headersOut['Content-Type'] || '';
    return REFUSALS.includes(answer.status) && type.startsWith('application/json');
}

export default {guard};
