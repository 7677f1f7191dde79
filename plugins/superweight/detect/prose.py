"""The prompt that is traced and the prose on which effects are measured, written for this purpose."""

from __future__ import annotations

PROMPT = """\
The ferry left the harbour a little after seven. It was the first clear morning of the month, and most of the
passengers stood outside, holding paper cups of coffee and looking back at the town.

"How long does it take?" asked a boy with a red hat. About forty minutes, his mother said, if the wind is kind.
"""

TEXT = (
    PROMPT
    + """
Nobody in the family could remember who had bought the clock. It stood in the hall between the coat rack and the
kitchen door, and it had been five minutes slow for at least thirty years. Visitors learned to add the difference.
When my grandfather died, my uncle took the clock to a repair shop in the city, where a young woman opened the case,
cleaned the wheels, and found a folded newspaper that someone had used to keep the pendulum from knocking against the
wood. The paper was from 1931. She put it back where it had been, because without it the clock ran fast.

Bread needs four things: flour, water, salt and time. Yeast helps, but wild yeast is already in the flour, and given a
few days it will do the work for nothing. Mix equal weights of flour and water in a jar and leave it on the table. On
the second day there may be a few bubbles; on the third it smells sour, and you will think that it has gone bad. Keep
going. Throw half of it away each morning and feed the rest with fresh flour and water. By the end of the week it should
double in size within six hours of being fed, and then it is ready to raise a loaf.

The city council voted on Tuesday to close the old bridge to cars. Engineers had warned for several years that the
steel under the roadway was rusting faster than it could be painted, and a report published in March put the cost of
repairs at eleven million. Shop owners on the east bank say that they will lose customers. People who cycle to work are
pleased, and a school has asked whether its summer fair could be held there. The bridge was opened in 1908 and carried
trams until the 1950s. It will stay open to pedestrians, at least for now.

A lake does not freeze from the bottom up, and it is worth asking why. Most liquids become denser as they cool, so the
coldest part sinks. Water does the same until it reaches about four degrees above freezing; below that it begins to
expand again. The coldest water therefore floats, and ice, which is lighter still, forms a lid over it. Under the lid
the temperature hardly changes all winter, and fish can live there until spring. If ice were heavier than water, lakes
in cold countries would fill with it from below and might never melt completely.

To reset the device, hold the power button for ten seconds until the light turns orange. Release it, wait for two short
beeps, and press it again. If the light stays red, check that the cable is firmly connected at both ends and that the
switch on the back is set to the voltage used in your country. Do not open the cover: there are no parts inside that you
can repair yourself. The warranty covers faults in material for two years from the date of purchase, but not damage
caused by water, lightning or the use of other chargers.

Her first novel sold fewer than four hundred copies, and the publisher asked politely whether she had thought of writing
for children. She had not. She went back to the library where she worked in the afternoons, and over the next nine years
she wrote a history of the railway that had brought her grandparents to the coast. It is a strange book. There are
chapters about timetables, about the price of coal, about a strike that lasted a single day because it rained; and yet
anyone who starts it on a train is likely to miss the stop. The second edition came out last autumn, with an index.

In mathematics a proof by contradiction begins by supposing that the claim is false. Suppose, for example, that there
were only a finite number of primes. Multiply all of them together and add one. The result cannot be divided by any
prime on the list, since each leaves a remainder of one, so either it is a prime itself or it has a prime factor that
the list left out. Both are impossible if the list was complete. Hence the list can never be complete, and there are
infinitely many primes. The argument is more than two thousand years old, and nobody has found a shorter one.
"""
)
